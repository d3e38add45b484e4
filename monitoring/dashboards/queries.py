"""The PromQL that dashboards share: which series are an app's, and what of them answers a question.

Nothing but the labels `namespace` and `pod` is needed of the scrape, as by monitoring/rules.yaml. The app's
name is the pod's without the two parts that a Deployment adds.
"""

from __future__ import annotations

# What a Deployment adds to its own name: the hash of the ReplicaSet, five characters of the pod.
_HASH = "-[bcdfghjklmnpqrstvwxz2456789]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"
POD_TO_APP = f"(.+){_HASH}"
# As a variable's regex in Grafana: the first group is the value; other pods have their own name.
APP_OF_POD = f"/^(.+?)(?:{_HASH})?$/"

ONE_APP = f'namespace=~"$namespace", pod=~"$app({_HASH})?"'
ALL_APPS = 'namespace=~"$namespace"'
WINDOW = "$__rate_interval"


def rate(metric: str, selected: str, *more: str) -> str:
    """Return the rate of a counter's series that are selected."""
    return f"rate({metric}{{{', '.join((selected, *more))}}}[{WINDOW}])"


def growth(metric: str, selected: str, *more: str) -> str:
    """Return by how much a counter grew from one bar to the next, so that each event is in one bar."""
    return f"increase({metric}{{{', '.join((selected, *more))}}}[$__interval])"


def increase(metric: str, selected: str, *more: str) -> str:
    """Return by how much a counter grew lately."""
    return f"increase({metric}{{{', '.join((selected, *more))}}}[{WINDOW}])"


def quantile(share: float, metric: str, selected: str, by: str = "") -> str:
    """Return a quantile of a histogram, over all series or for each value of the labels `by`."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'{metric}_bucket', selected)}))"


def with_app(series: str) -> str:
    """Return the series with the label `wsgiapp`, made of the pod's name."""
    everywhere = f'label_replace({series}, "wsgiapp", "$1", "pod", "(.+)")'
    return f'label_replace({everywhere}, "wsgiapp", "$1", "pod", "{POD_TO_APP}")'


def sum_by_app(series: str) -> str:
    return f"sum by (namespace, wsgiapp) ({with_app(series)})"


def max_by_app(series: str) -> str:
    return f"max by (namespace, wsgiapp) ({with_app(series)})"


def quantile_by_app(share: float, metric: str, selected: str) -> str:
    buckets = with_app(rate(f"{metric}_bucket", selected))
    return f"histogram_quantile({share}, sum by (namespace, wsgiapp, le) ({buckets}))"


def state_by(labels: str, selected: str, *, app: bool = False) -> str:
    """Return a number for each pod or app: 0 not ready, 1 serving, 2 replacing workers, 3 a reload failed."""

    def of(series: str) -> str:
        return with_app(series) if app else series

    failed = increase("wsgi_reloads_total", selected, 'result="failed"')
    changing = (
        f'(wsgi_workers{{{selected}, state=~"booting|draining"}} > 0 '
        f"or changes(wsgi_generation{{{selected}}}[{WINDOW}]))"
    )
    ready = f"min by ({labels}) ({of(f'wsgi_ready{{{selected}}}')})"
    return (
        f"3 * (sum by ({labels}) ({of(failed)}) > bool 0) > 0\n"
        f"or\n{ready} * (1 + (sum by ({labels}) ({of(changing)}) > bool 0))"
    )


# --- the operator ---------------------------------------------------------------------------------


OPERATOR = 'namespace=~"$namespace"'
