"""`make audit`: known vulnerabilities of what is installed, or a clear word that none could be asked.

Exit code 1: there are some. 3: no advisory service answered, so nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys

_VULNERABLE, _NO_ANSWER = 1, 3
_SERVICES = ("pypi", "osv")


def main() -> int:
    """Ask one service after the other; pip-audit is installed on the way."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "pip-audit>=2.7",
    ]
    if subprocess.run(pip, check=False).returncode:
        print("no answer: pip-audit cannot be installed from here", file=sys.stderr)
        return _NO_ANSWER
    for service in _SERVICES:
        command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
        command += [
            "--vulnerability-service",
            service,
            "--progress-spinner",
            "off",
            "--timeout",
            "15",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError):
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{service} did not answer: {last[:200]}", file=sys.stderr)
            continue
        known = sum("skip_reason" not in package for package in packages)
        if 2 * known < len(packages):
            # A mirror answers for its files, and has no advisories.
            print(f"{service} knows {known} of {len(packages)} packages", file=sys.stderr)
            continue
        return _report(service, packages)
    print(
        "no answer: no advisory service that knows them could be reached, so nothing is known of the "
        "installed packages; run it where the network allows it",
        file=sys.stderr,
    )
    return _NO_ANSWER


def _report(service: str, packages: list[dict[str, object]]) -> int:
    skipped = [p for p in packages if "skip_reason" in p]
    found = [p for p in packages if p.get("vulns")]
    for package in found:
        print(package["name"], package["version"], json.dumps(package["vulns"], indent=1))
    asked = len(packages) - len(skipped)
    print(
        f"{service}: {asked} packages asked, {len(skipped)} unknown to it, {len(found)} vulnerable"
    )
    return _VULNERABLE if found else 0


if __name__ == "__main__":
    sys.exit(main())
