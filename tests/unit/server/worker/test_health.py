import pytest
from prefork.worker.health import judge

PAGE = (
    b"<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p class=a"
)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"no database\nat db:5432\n", ": no database at db:5432"),
        (b"3 < 5 and 5 > 3", ": 3 < 5 and 5 > 3"),
        (PAGE, ": 404 Not Found Not Found"),
    ],
)
def test_bad_answer_is_shown_on_one_line_and_a_page_without_its_tags(
    body: bytes, shown: str
) -> None:
    answer = b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\n" + body
    assert judge("/health", answer, 5) == f"GET /health answered 404{shown}"
