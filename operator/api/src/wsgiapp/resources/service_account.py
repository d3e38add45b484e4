"""The ServiceAccount: an identity for policies, without a token in the pod."""

from wsgiapp.resources.owned import build_owned
from wsgiapp.types import App, Manifest


def build_service_account(app: App) -> Manifest:
    return build_owned(app, "v1", "ServiceAccount", automountServiceAccountToken=False)
