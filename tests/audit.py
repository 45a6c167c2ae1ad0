"""Known vulnerabilities of what a lock file pins, by pip-audit.

``python tests/audit.py requirements.lock`` exits with 1 where there are any; where pip-audit's
service cannot be asked it says ``skipped`` and exits with 0.
"""

import json
import subprocess
import sys

# What pip-audit's last words say where the service, not the lock file, is at fault.
_OUT_OF_REACH = ("Connection", "connect", "Timeout", "ServiceError", "SSLError", "your network")


def judge(output: str, errors: str) -> tuple[int, str]:
    """The exit code and what to say, of what pip-audit wrote."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        said = errors.strip().splitlines()[-3:] or ["pip-audit said nothing"]
        if any(word in line for word in _OUT_OF_REACH for line in said):
            return 0, f"skipped: the vulnerability service cannot be reached ({said[-1][:200]})"
        return 1, "pip-audit failed: " + " ".join(said)
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    if len(unknown) == len(packages):
        return 0, "skipped: the vulnerability service knows none of the packages"
    found = [
        f"{each['name']} {each['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no version'}"
        for each in packages
        for fault in each.get("vulns", ())
    ]
    known = f"{len(packages) - len(unknown)} packages audited"
    without = f", without {', '.join(unknown)}" if unknown else ""
    return int(bool(found)), "\n".join([*found, f"{known}{without}: {len(found)} vulnerabilities"])


def main(lock: str) -> int:
    """Audit a lock file."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", lock, "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        code, text = 0, "skipped: the vulnerability service took more than 300 s"
    else:
        code, text = judge(done.stdout, done.stderr)
    print(f"pip-audit: {text}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
