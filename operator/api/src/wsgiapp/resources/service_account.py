"""The ServiceAccount: an identity for policies, without a token in the pod."""

from wsgiapp.resources.owned import build_child
from wsgiapp.types import App, Manifest


def build_account(app: App) -> Manifest:
    return build_child(app, "v1", "ServiceAccount", automountServiceAccountToken=False)
