"""The error that is the user's to mend."""


class UserError(Exception):
    """Something the user can put right. Its text is one line a problem: what, where, what to do."""
