"""Liveness and readiness, judged by the table."""

from prefork.agent.readiness import Readiness, find_liveness_fault
from prefork.base.stats import ServerState, Table, WorkerState

from tests.unit.server.slots import occupy


def fault_of(readiness: Readiness, table: Table | None, now: float) -> tuple[str, str]:
    fault = readiness.find_fault(table, now)
    return (fault.reason.value, fault.text) if fault else ("", "")


def test_liveness_is_the_heartbeat(writer: Table):
    writer.beat(100.0)
    assert find_liveness_fault(writer, 109.0) == ""
    assert find_liveness_fault(writer, 111.0) == "the arbiter's last heartbeat is 11 s old"
    assert find_liveness_fault(None, 111.0) == ""


def test_readiness_bears_a_short_gap_and_no_long_one(writer: Table):
    readiness = Readiness()
    assert fault_of(readiness, None, 0) == ("not_started", "the server has not started")
    writer.beat(100.0)
    writer.set_header("workers_desired", 2)
    assert fault_of(readiness, writer, 100) == ("booting", "the server is booting")
    writer.set_header("state", ServerState.SERVING.value)
    writer.set_header("generation", 1)
    occupy(writer, 1)
    occupy(writer, 2, state=WorkerState.BOOTING)
    assert fault_of(readiness, writer, 100) == ("workers_missing", "1 of 2 workers are ready")
    occupy(writer, 2)
    assert fault_of(readiness, writer, 101) == ("", "")
    writer.free(2)
    assert fault_of(readiness, writer, 102) == ("", "")
    assert fault_of(readiness, writer, 104) == ("workers_missing", "1 of 2 workers are ready")
    occupy(writer, 2)
    assert fault_of(readiness, writer, 105) == ("", "")
    occupy(writer, 1, generation=2)
    occupy(writer, 2, generation=2)
    writer.free(1)
    writer.free(2)
    assert fault_of(readiness, writer, 105.1) == ("workers_missing", "0 of 2 workers are ready")
    writer.set_header("state", ServerState.STOPPING.value)
    assert fault_of(readiness, writer, 105) == ("stopping", "the server is stopping")
