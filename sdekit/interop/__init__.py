"""Other packages: their solvers behind `sdekit.solve`, and their objects as ours.

Optional: nothing else imports this package but inside functions, and it imports the others on use only.
"""

from __future__ import annotations

from sdekit.interop.torchsde import PathBrownian, from_torchsde, to_torchsde

__all__ = ["PathBrownian", "from_torchsde", "to_torchsde"]
