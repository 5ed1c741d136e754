"""Measures of sharpness while a network trains, without disturbing it.

The weights are copied when a reading is due; the training's model, mode, gradients, optimizer and random
numbers are the same after a reading as before. Works as a plain call in a loop, as a callback of Lightning
and of the Trainer of Hugging Face: it has the methods that those call, and needs neither package.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from fathometer.errors import FathometerError, InputError
from fathometer.model import LossSurface
from fathometer.model.replica import unchanged_random_state
from fathometer.results import Row, Table
from fathometer.sharpness.measures import chosen

QUICK = ("hessian_norm", "relative_norm", "fisher_rao_empirical")


class SharpnessLog:
    """Takes chosen measures every so many steps.

    Args:
        loss: As `LossSurface` takes it.
        data: As `LossSurface` takes it: a fixed subset of the data keeps readings comparable.
        measures: Names, see `measure`.
        every: Steps between readings, at least 1.
        seed: Of every random number of the measures.
        on_reading: Called with each reading, a `Row` of ``step``, ``seconds`` and a column a measure.

    Raises:
        InputError: If ``every`` is below 1 or a measure is unknown.

    >>> import torch
    >>> model, x, y = nn.Linear(2, 1), torch.eye(2), torch.ones(2, 1)
    >>> log = SharpnessLog("mse", (x, y), ["gradient_norm"], every=10)
    >>> [log(model, step) is not None for step in (0, 5, 10)]
    [True, False, True]
    """

    def __init__(
        self,
        loss: Any,
        data: Any,
        measures: Iterable[str] = QUICK,
        *,
        every: int = 100,
        seed: int = 0,
        on_reading: Callable[[Row], None] | None = None,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every is {every!r}; at least 1 step lies between two readings.")
        self.names = [measures] if isinstance(measures, str) else list(measures)
        self.loss, self.data, self.every, self.seed = loss, data, every, seed
        self.on_reading = on_reading
        self.rows: list[Row] = []
        self.notes: list[str] = []
        chosen([name for name in self.names if not name.startswith("layer_")], None)

    def __call__(self, model: nn.Module, step: int) -> Row | None:
        """Take a reading if one is due at this step; return it, or None."""
        if step % self.every or (self.rows and self.rows[-1].step == step):
            return None
        start = time.perf_counter()
        cells: dict[str, float] = {}
        with unchanged_random_state():
            surface = LossSurface(model, self.loss, self.data)
            for name, what in chosen(self.names, surface).items():
                try:
                    cells[name] = float(what.function(surface, self.seed).value)
                except FathometerError as cause:
                    cells[name] = float("nan")
                    self.notes.append(f"{name} was not measured at step {step}: {cause}")
        row = Row(step=step, **cells, seconds=time.perf_counter() - start)
        self.rows.append(row)
        if self.on_reading is not None:
            self.on_reading(row)
        return row

    def table(self) -> Table:
        """All readings so far, one row each; what could not be measured stands in ``notes``."""
        return Table(title="Sharpness during training", rows=tuple(self.rows), notes=tuple(self.notes))

    # Lightning calls on_train_batch_end(trainer, module, ...); the Trainer of Hugging Face calls every
    # method of its callbacks by name with (args, state, control, model=...).

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any, **__: Any) -> None:
        """A step of Lightning has ended: called with its ``trainer`` and the model, ``pl_module``."""
        row = self(pl_module, int(trainer.global_step))
        log: Any = getattr(pl_module, "log_dict", None)
        if row is not None and log is not None:
            log({f"sharpness/{k}": v for k, v in row.items() if k not in ("step", "seconds")})

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> Any:
        """A step of the Hugging Face Trainer has ended: its ``args``, ``state``, ``control``, ``model``."""
        row = self(model, int(state.global_step))
        if row is not None and isinstance(getattr(state, "log_history", None), list):
            named = {f"sharpness/{k}": v for k, v in row.items() if k not in ("step", "seconds")}
            state.log_history.append({**named, "step": row.step})  # every entry of the history has its step
        return control

    @property
    def state_key(self) -> str:
        """Tells the logs of one trainer apart in a checkpoint of Lightning."""
        return f"SharpnessLog every {self.every}: {', '.join(self.names)}"

    def state_dict(self) -> dict[str, Any]:
        """The readings so far, for a checkpoint: a resumed training goes on with them."""
        return {"rows": [dict(row.items()) for row in self.rows], "notes": list(self.notes)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the readings of a checkpoint (``state_dict``) in place of those so far."""
        self.rows = [Row(**cells) for cells in state_dict["rows"]]
        self.notes = list(state_dict["notes"])

    def __getattr__(self, name: str) -> Any:
        """Other events of a trainer pass by."""
        if name.startswith("on_") or name in ("setup", "teardown"):
            return _pass_by
        if name == "_legacy_state_key":  # Lightning looks for states of its old versions under it
            return type(self)
        raise AttributeError(f"a SharpnessLog has no attribute {name!r}")


def _pass_by(*_: Any, **__: Any) -> None:
    return None
