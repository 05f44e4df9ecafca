"""The one exception type that a user of the toolkit is meant to read."""


class UserError(ValueError):
    """Something the user can mend: one sentence with the law, the value and the way out.

    The command line prints the sentence and exits with code 2; anything else that escapes is a
    fault of ours and keeps its traceback.
    """


class PlaceError(UserError):
    """A database, a disk or a bucket does not take or give what it must: no fault of a run."""
