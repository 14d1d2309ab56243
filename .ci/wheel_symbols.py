"""Fails unless the modules of the wheels need nothing but the interpreter and the glibc of their tag, or an older one.

usage: wheel_symbols.py WHEEL...

auditwheel compares versions only: a function that the glibc of the tag does not have at all, and that the compiler took
on trust, is an undefined symbol without a version, which it passes over.
"""

import io
import re
import sys
import zipfile

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection


def undefined(module):
    """Each strong symbol that the module has from elsewhere, with the version that it asks for or None."""
    elf = ELFFile(module)
    needed, numbers = {}, None
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, auxiliaries in section.iter_versions():
                needed.update((each["vna_other"], each.name) for each in auxiliaries)
        elif isinstance(section, GNUVerSymSection):
            numbers = section
    for i, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
        if symbol.name and symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_WEAK":
            yield symbol.name, needed.get(numbers.get_symbol(i)["ndx"]) if numbers else None


def is_at_hand(name, version, glibc):
    if version is None:
        return name.startswith(("Py", "_Py"))
    asked = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version)
    return asked is not None and (int(asked[1]), int(asked[2])) <= glibc


def main(wheels):
    wrong = total = 0
    for wheel in wheels:
        tag = re.search(r"manylinux_(\d+)_(\d+)_", wheel)
        if tag is None:
            sys.exit(f"{wheel} has no tag of a glibc")
        glibc = int(tag[1]), int(tag[2])
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".so"):
                    for symbol, version in undefined(io.BytesIO(archive.read(name))):
                        total += 1
                        if not is_at_hand(symbol, version, glibc):
                            wrong += 1
                            print(f"{wheel}: {name} needs {symbol}@{version}", file=sys.stderr)
    if wrong or not total:
        sys.exit(f"{wrong} of {total} symbols are not to be had everywhere")
    print(f"{total} symbols of {len(wheels)} wheels: the interpreter's, or of the glibc of the tag")


if __name__ == "__main__":
    main(sys.argv[1:])
