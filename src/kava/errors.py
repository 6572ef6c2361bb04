"""The error a command reports in one line when neither a value nor a file is to blame."""


class KavaError(RuntimeError):
    """A run that cannot go on, for a reason its user can act on.

    A bad value is a `ValueError` and a bad file an `OSError`; this is for what is left, such as
    a loss that is no longer finite. The shell prints all three as one line; a `RuntimeError`
    of another kind is a defect and keeps its traceback.

    Example:
        >>> raise KavaError("the loss is nan at step 12, samples 'a7' and 'b3'; lower --lr")
        Traceback (most recent call last):
        ...
        kava.errors.KavaError: the loss is nan at step 12, samples 'a7' and 'b3'; lower --lr
    """
