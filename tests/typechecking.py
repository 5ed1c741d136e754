"""The judge of the typed run (``./run typed``): beartype, to which an int is a float, as to pyright."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
