"""A Kubernetes to test on: one started on this machine, kind, or the one the current context names.

`Cluster` is the face for the e2e tests and the demo, `python -m tests.cluster` the one for people.
Standard library only: it runs before anything is installed.
"""

from tests.cluster.cluster import Cluster as Cluster
from tests.cluster.commands import ClusterError as ClusterError
