"""Ends what the main thread does, as Ctrl-C would, also where it waits in the system."""

import signal
import threading


def interrupt_main() -> None:
    """Raise KeyboardInterrupt in the main thread, from any other one.

    A shell has its background jobs ignore SIGINT: then it is SIGTERM, which the command line treats alike.
    """
    handled = (number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number)))
    if (main := threading.main_thread().ident) is not None and (number := next(handled, None)) is not None:
        signal.pthread_kill(main, number)
