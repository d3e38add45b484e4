"""What the cluster and the installation give."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the cluster and the installation give: the server's image, and how pods get at it."""

    prefork_image: str
    prefork_pull_policy: str
    prefork_pull_secrets: tuple[str, ...] = ()  # in each app's namespace
    image_volumes: bool  # on by default from Kubernetes 1.35
    # All addresses of a pod. The kubelet, Services and the operator use its first one, which is an IPv6 one in a
    # cluster of that kind: "[::]", where IPv4 is listened on as well.
    any_address: str = "0.0.0.0"
    # User and group of pods that name none; None leaves it to the cluster, which assigns ids itself.
    pod_id: int | None = 10001
    # Patterns of what WsgiApps may have in spec.ingress.annotations; none: anything.
    ingress_annotations: tuple[str, ...] = ()
