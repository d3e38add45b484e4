"""Socket activation."""

from prefork.base.systemd import passed_descriptors


def test_sockets_of_systemd_are_for_the_process_they_name():
    assert passed_descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 7) == (3, 4)
    assert passed_descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 8) == ()
    assert passed_descriptors({}, 7) == ()
    for count in ("\N{SUPERSCRIPT TWO}", "1" * 9, "-1", ""):
        assert passed_descriptors({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7) == ()
