"""How a broken promise is reported."""


class InvariantError(AssertionError):
    """A promise was broken: `promise` is its name, as "G2"."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what
