"""Parts of reports in Markdown: a table, and what was measured on and with."""


def table(header, rows, left=(0,)):
    """A Markdown table; columns stand to the right but for those named in ``left``, by number."""
    rule = ["---" if column in left else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows))


def of_machine(machine):
    caches = ", ".join(f"{name} {size >> 10} KiB" for name, size in sorted(machine["caches"].items()))
    return (
        f"{machine['cpu']} ({machine['target']}), {machine['cores']} cores, {caches};"
        f" vectors of {machine['register_bits']} bits."
    )


def of_versions(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version) + "."
