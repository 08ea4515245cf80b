"""Tests whether a server is reachable, before a library retries for minutes."""

import functools
import ssl
import threading
import urllib.error
import urllib.request

# The name resolver cannot be given a time limit; this bounds the whole attempt.
_PROBE_SECONDS = 8.0


@functools.cache
def is_reachable(address: str, seconds: float = _PROBE_SECONDS) -> bool:
    """Returns whether a server responds; tested once per process.

    Args:
        address: the server's URL, such as https://huggingface.co.
        seconds: time limit of the whole attempt.
    """
    results: list[bool] = []

    def probe() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            results.append(True)
        except urllib.error.HTTPError:
            results.append(True)
        except urllib.error.URLError as error:
            # A certificate that urllib does not trust still proves a server is there.
            results.append(isinstance(error.reason, ssl.SSLError))
        except OSError:
            results.append(False)

    # A daemon thread: a hanging name look-up must not keep the process alive.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(results) and results[0]
