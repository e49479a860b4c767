"""Requests over and over, as a background for what happens to a cluster."""
import threading


class Load:
    """Requests over and over, until told to stop; keeps every answer."""

    def __init__(self, cluster, requests, concurrency=8, router=None):
        self.answers, self.error = [], None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run,
                                       args=(cluster, requests, concurrency, router))
        self.thread.start()

    def _run(self, cluster, requests, concurrency, router):
        try:
            while not self.stopping.is_set():
                self.answers += list(enumerate(
                    cluster.generate(requests, "--concurrency", concurrency, check=False,
                                     router=router)))
        except Exception as error:  # reported by stop(), on the test's thread
            self.error = error

    def await_rounds(self, cluster, rounds, size):
        cluster.wait_until("%d rounds of load" % rounds,
                           lambda: self.error or len(self.answers) >= rounds * size, timeout=180)

    def stop(self):
        self.stopping.set()
        self.thread.join(timeout=300)
        if self.thread.is_alive():
            raise TimeoutError("the load does not end")
        if self.error:
            raise self.error
        return self.answers
