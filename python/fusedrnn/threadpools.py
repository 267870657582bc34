"""The threads of the kernels as one more pool of threadpoolctl: importing this module registers them.

``fusedrnn.sklearn`` does it, and ``fusedrnn`` itself where threadpoolctl has been imported before. Then
``threadpool_limits(1)`` and ``threadpool_info()`` count the kernels in; their ``user_api`` is "fusedrnn". Needs
threadpoolctl, which comes with scikit-learn.
"""

from __future__ import annotations

import threadpoolctl


class KernelThreads(threadpoolctl.LibController):  # type: ignore[misc]
    """Reads and limits the number of threads of the kernels, in the whole process."""

    user_api = "fusedrnn"
    internal_api = "fusedrnn"
    filename_prefixes = ("_core",)
    check_symbols = ("fusedrnn_get_num_threads",)  # other packages have a _core, too

    def get_num_threads(self) -> int:
        """Return what ``fusedrnn.get_num_threads`` returns."""
        count: int = self.dynlib.fusedrnn_get_num_threads()
        return count

    def set_num_threads(self, num_threads: int) -> None:
        """Do what ``fusedrnn.set_num_threads`` does; a number outside its range becomes the next one inside."""
        self.dynlib.fusedrnn_set_num_threads(num_threads)

    def get_version(self) -> str:
        """Return the version of the package."""
        from . import __version__

        return __version__


threadpoolctl.register(KernelThreads)
