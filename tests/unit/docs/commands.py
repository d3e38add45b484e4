"""Which command of the pages is tried where. A command on no line of this table fails test_commands.py.

Each line: a pattern that the whole command fits, and what tries it.

- HERE: test_commands.py runs it, prefork with --check-config;
- a test's file: it does the same, on a real server or cluster;
- "yours: …": it needs what only the reader has, or is the reader's own choice; the reason follows.
"""

HERE = "here"
DEMO_LOCAL, DEMO = "tests/demo/local_part.py", "tests/demo/cluster_part.py"
RUN, OPERATE = "tests/process/test_wsgiapp_run.py", "tests/process/test_operate.py"
CHART, UNIT_CHART = "tests/e2e/test_chart.py", "tests/unit/chart/test_chart.py"
FRESH = "tests/support/fresh-machine"
KEPT = "tests/e2e/test_kept_as_declared.py"
READS = "yours: it reads a cluster that has the problem"

COMMANDS = [
    # this tree
    (r"make setup", FRESH),
    (r"make demo", DEMO),
    (r"make [a-z-]+", "tests/support/run-tests"),
    (r"\.venv/bin/python -m tests\..*", "yours: on an app and its Prometheus"),
    (r"export (CLUSTER|WSGIAPP_INGRESS_URL|WSGIAPP_IMAGE_LOADER)=.*", "yours: another cluster"),
    (r"export KUBECONFIG=\S+ PATH=\S+", DEMO),
    (r"python server/build_engine\.py --python [\d. ]+", "tests/unit/cluster/test_images.py"),
    # packages
    (r"pip install (--find-links dist )?(prefork)?( ?wsgiapp-cli)?", "tests/support/packages.py"),
    # the server
    (r"prefork +-w .*", HERE),
    (r"prefork (reload|status|stop) --run-dir \S+", OPERATE),
    (r"echo '\{\"op\":\"reload\".*\| nc -NU \S+", "yours: nc is one of many clients"),
    (r"gunicorn .*", "tests/bench/peers.py"),
    # wsgiapp
    (r"wsgiapp render -f \S+", HERE),
    (r"(\S*/)?wsgiapp run -f \S+", RUN),
    (r"cp manifests/examples/flask\.yaml flask\.yaml", HERE),
    (r"cd manifests/examples/django", RUN),
    (r"sed -i 's/VERSION = .*' flask\.yaml", HERE),
    (r"curl -i http://127\.0\.0\.1:8000/", RUN),
    # a cluster
    (r"helm (install|upgrade|uninstall) wsgiapp-operator .*", CHART),
    (r"helm test wsgiapp-operator .*", CHART),
    (r"kubectl apply (--server-side )?-f (flask|install|manifests/\S+)\.yaml", DEMO),
    (r"sed 's#.*' manifests/install\.yaml > install\.yaml", "tests/unit/docs/test_commands.py"),
    (r"kubectl (get|wait|describe) wsgi\b.*", DEMO),
    (r"kubectl delete wsgiapps --all --all-namespaces", "yours: it deletes every app"),
    (r"kubectl delete crd wsgiapps\.wsgi\.dev", CHART),
    (r"kubectl delete namespace wsgiapp-system", "yours: it takes the operator away"),
    (
        r"kubectl (--namespace kube-system )?delete (cluster)?role,\S+ -l \S+",
        "yours: it takes the operator away",
    ),
    (r"kubectl (annotate|label|patch) crd wsgiapps\.wsgi\.dev .*", CHART),
    (r"kubectl annotate configmap shop-settings .*", "tests/e2e/test_reload_config.py"),
    (r"kubectl create secret tls shop-tls .*", "tests/e2e/test_routing.py"),
    (r"kubectl logs POD -c app", READS),
    (r"docker (build|save|push) .*", "yours: a machine with Docker"),
    (r"~/\.cache/wsgiapp/bin/ctr .* images import shop\.tar", "tests/cluster/images.py"),
    # the alerts' pages
    (r"(NAMESPACE|POD|APP)=.*", READS),
    (r"kubectl --namespace (\$NAMESPACE|kube-system) .*", READS),
    (r"kubectl get wsgiapps --all-namespaces.*", READS),
    (r"curl -s http://127\.0\.0\.1:9000/status", "tests/process/test_agent.py"),
]
