"""The ServiceAccount: an identity for policies, without a token in the pod."""

from wsgiapp_operator.api import App, Manifest
from wsgiapp_operator.build.child import build_child


def build_account(app: App) -> Manifest:
    return build_child(app, "v1", "ServiceAccount", automountServiceAccountToken=False)
