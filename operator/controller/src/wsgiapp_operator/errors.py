"""What a reconcile ends with besides success."""


class RequeueAfter(Exception):  # noqa: N818 -- named for what is to be done
    """Nothing is wrong with the app, but it has to be looked at again soon."""

    def __init__(self, reason: str, after_s: float) -> None:
        super().__init__(reason)
        self.after_s = after_s


class OwnerDeleted(Exception):  # noqa: N818 -- named for what has happened
    """The WsgiApp with this uid was deleted, which the cache does not know yet."""

    def __init__(self, app: str, uid: str) -> None:
        super().__init__(f"{app} with uid {uid}")
        self.uid = uid
