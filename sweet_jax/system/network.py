"""Whether anything can be fetched, asked before a library retries for minutes."""

import functools
import ssl
import threading
import urllib.error
import urllib.request

# The name resolver cannot be given a time limit; this bounds the whole attempt.
_PROBE_SECONDS = 8.0


@functools.cache
def is_reachable(address: str, seconds: float = _PROBE_SECONDS) -> bool:
    """Returns whether anything answers at the address; asked once a process.

    Args:
        address: of a server, such as https://huggingface.co.
        seconds: limit of the whole attempt.
    """
    answers: list[bool] = []

    def probe() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except urllib.error.URLError as error:
            # A certificate urllib does not trust still comes from someone there.
            answers.append(isinstance(error.reason, ssl.SSLError))
        except OSError:
            answers.append(False)

    # A daemon: a name look-up that hangs must not keep the process alive either.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0]
