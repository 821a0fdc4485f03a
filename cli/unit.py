"""`collegium node unit`: a systemd unit that runs this home's daemon as a service, with few rights."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..crypto.errors import UsageError
from ..protocol.names import visible
from .options import HomeOption, JsonOption, existing_home
from .output import emit
from .proposals import elsewhere

if TYPE_CHECKING:
    from ..node.home.paths import Home

UNIT = """\
# A Collegium node as a systemd service. Install it as /etc/systemd/system/collegium.service, then:
#   systemctl daemon-reload && systemctl enable --now collegium
# What each line takes away from the daemon: man systemd.exec. `systemd-analyze security collegium` rates it.
[Unit]
Description=Collegium node
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
User={user}
ExecStart={command} node start --foreground --home {home}
# A sealed key: a file that only root can read, and the name under which the service sees it.
# LoadCredential=passphrase:/etc/collegium/passphrase
# ExecStart=…the line above, and: --passphrase-file %d/passphrase
WatchdogSec=120
Restart=on-failure
RestartSec=10
# Wrong configuration (2), damage (3), refused by a rule (5): starting again mends none of them.
RestartPreventExitStatus=2 3 5
TimeoutStartSec=600
TimeoutStopSec=60
LimitNOFILE=65536
UMask=0077

# It writes into its own directory and nowhere else, and reads everything that its user may read.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={home}
PrivateTmp={tmp}
# With a GPU for the learner: no.
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
# MemoryDenyWriteExecute is not set: PyTorch compiles code while it runs.

[Install]
WantedBy=multi-user.target
"""


def unit(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print a systemd unit for this home: `collegium node unit | sudo tee /etc/systemd/system/collegium.service`."""
    node_home = existing_home(home)
    command = Path(sys.executable).with_name("collegium")
    text = text_of(node_home, command, getpass.getuser())
    emit({"unit": text}, as_json, lambda out: _print(out, text))


def text_of(home: "Home", command: Path, user: str) -> str:
    """Return the unit for a home. Raises UsageError for a path that no unit can name."""
    root = home.root.absolute()
    # A socket in the system's temporary folder has to be where the commands look for it.
    tmp = "yes" if home.socket.parent == root else "no"
    return UNIT.format(user=user, command=_quoted(command), home=_quoted(root), tmp=tmp)


def _quoted(path: Path) -> str:
    text = str(path)
    if not visible(text) or "$" in text:
        raise UsageError(
            f"A unit cannot name {path}", "Choose a directory without $ and without signs that leave no mark."
        )
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(sign in text for sign in " '\"\\;#") else text


def _print(out: Any, text: str) -> None:
    out.print(elsewhere(text.rstrip("\n")), soft_wrap=True)
