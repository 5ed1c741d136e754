"""Progress of a part of the work is a share of the whole."""

from fathometer.work import phase, silent


def test_phases_fill_the_whole():
    seen = []

    def whole(done, total, what):
        seen.append((done / total, what))

    first, second = phase(whole, 0.0, 0.25, "a"), phase(whole, 0.25, 1.0)
    for i in range(1, 5):
        first(i, 4, "x")
    second(0, 0, "")
    second(3, 3, "")
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert seen[3] == (0.25, "a: x")
    assert seen[4] == (0.25, "")
    assert seen[-1] == (1.0, "")


def test_phases_nest():
    seen = []
    inner = phase(
        phase(lambda done, total, what: seen.append((done, total, what)), 0.5, 1.0, "out"), 0.5, 1.0, "in"
    )
    inner(1, 1, "")
    inner(0, 1, "now")
    assert seen == [(1000, 1000, "out: in"), (750, 1000, "out: in: now")]


def test_no_callback_is_silence():
    assert phase(None, 0, 1, "a") is silent
    silent(1, 2, "x")
