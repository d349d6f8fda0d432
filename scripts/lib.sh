# shellcheck shell=sh
# What the build's scripts share: how they speak, and how they get packages. To be sourced from the checkout's root.
# Everything that is downloaded goes below $DEPS; what a package manager installs is announced first.

DEPS=${DEPS:-target/deps}

say() { printf 'hanok: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# limited SECONDS COMMAND...: with a time limit, where the machine has `timeout` (macOS doesn't).
limited() {
    if have timeout; then timeout "$@"; else
        shift
        "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# put FILE FROM: copies when the contents differ, so that times change only when something did.
put() {
    cmp -s "$2" "$1" && return 0
    mkdir -p "$(dirname "$1")" && cp "$2" "$1.new" && mv "$1.new" "$1"
}

# The distribution's name (debian, ubuntu, fedora, ...) and, for Debian, its release (bookworm, ...).
os_id() { if [ -r /etc/os-release ]; then (. /etc/os-release && echo "${ID:-unknown}"); else uname -s; fi; }
os_codename() { if [ -r /etc/os-release ]; then (. /etc/os-release && echo "${VERSION_CODENAME:-}"); fi; }

# root_command COMMAND...: what to type to have it run as root.
root_command() {
    if [ "$(id -u)" = 0 ]; then
        echo "$*"
    elif have sudo; then
        echo "sudo $*"
    else
        echo "su -c '$*'"
    fi
}

# install_command DEBIAN-PACKAGES FEDORA-PACKAGES BREW-PACKAGES: the command that brings them on this machine.
install_command() {
    if have apt-get; then
        root_command "apt-get install $1"
    elif have dnf; then
        root_command "dnf install $2"
    elif have brew; then
        echo "brew install $3"
    else
        echo "your package manager: Debian calls it $1, Fedora $2, Homebrew $3"
    fi
}

# candidate PACKAGE: the version that apt would install or has installed, or nothing.
candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)'; }

# apt_install WHY PACKAGE...: installs from the machine's own sources, as root or by sudo; the caller says what is
# missing where that can't be. Nothing is ever removed for it.
apt_install() {
    why=$1
    shift
    have apt-get && can_be_root || return 1
    say "installing with apt: $* ($why)"
    apt_update
    apt_quietly install --no-install-recommends --no-remove "$@"
}

# apt_update: brings the machine's package lists up to date, once: a fresh machine has none, or old ones. Where that
# fails, the lists that are there may do.
apt_update() {
    [ -e "$DEPS/apt-updated" ] || { apt_quietly update && : >"$DEPS/apt-updated"; }
}

# apt_quietly ARGUMENT...: apt-get as root, its output in a log that is shown when it fails.
apt_quietly() {
    mkdir -p "$DEPS"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@" \
        >"$DEPS/apt.log" 2>&1 </dev/null && return 0
    say "apt-get $* failed:"
    tail -n 15 "$DEPS/apt.log" >&2
    return 1
}

# debian_mirror SUITE: where this machine's apt gets that suite of Debian from; DEBIAN_MIRROR says it otherwise.
debian_mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    [ "$(os_id)" = debian ] && have apt-get || return 1
    uris=$(LC_ALL=C apt-get --print-uris update 2>/dev/null) || return 1
    # A mirror that has the suite, or else the main one: backports and other suites lie beside the release.
    for wanted in "$1" "$(os_codename)"; do
        found=$(printf '%s\n' "$uris" | sed -n "s|^'\(.*\)/dists/$wanted/InRelease'.*|\1|p" | head -n 1)
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
    done
    return 1
}

# private_apt FOLDER ARCHITECTURE SUITE...: makes in FOLDER an apt configuration of its own, with its own lists, that
# knows these suites for that architecture and changes nothing of the machine's. Network settings are the machine's
# (proxies, certificates); its hooks aren't taken over. For the host's own architecture, packages are installed to
# the machine all the same. The archive's components are $components, or main alone. Sets APT_CONFIG, the variable
# that makes apt use it.
private_apt() {
    folder=$1 architecture=$2
    shift 2
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    folder=$(cd "$folder" && pwd)
    : >"$folder/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    [ -r "$keyring" ] && signed=" signed-by=$keyring"
    : >"$folder/sources.list"
    for suite in "$@"; do
        mirror=$(debian_mirror "$suite") || return 1
        echo "deb [arch=$architecture$signed] $mirror $suite ${components:-main}" >>"$folder/sources.list"
    done
    {
        apt-config dump | grep '^Acquire::'
        echo 'Acquire::Retries "3"; Acquire::Languages "none"; APT::Update::Error-Mode "any";'
        echo 'Dir::Etc::main "/dev/null"; Dir::Etc::Parts "/dev/null"; Dir::Etc::SourceParts "/dev/null";'
        echo 'Dir::Etc::Preferences "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";'
        echo "Dir::Etc::SourceList \"$folder/sources.list\"; Dir::State::Lists \"$folder/lists\";"
        echo "Dir::Cache \"$folder/cache\"; DPkg::Lock::Timeout \"120\";"
        if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
            echo "APT::Architecture \"$architecture\"; APT::Architectures { \"$architecture\"; };"
            echo "Dir::State::status \"$folder/status\"; Debug::NoLocking \"true\";"
        fi
        [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
    } >"$folder/apt.conf"
    # shellcheck disable=SC2034  # for the caller, who exports it or not
    APT_CONFIG=$folder/apt.conf
}

# debian_packages FOLDER WHAT PACKAGE...: downloads Debian's packages of $architecture, or else arm64, and unpacks them into FOLDER/root, with
# their versions in FOLDER/versions; WHAT says for people what they are for. Where $dependencies is set, all that they depend on comes too.
# linux-image-(...-)arm64 stands for the newest kernel, whose version is in $kernel_release then, and xen-system-arm64 for the newest Xen. The
# suite is $SUITE, the components are as with private_apt. Needs apt and no root: the lists are private, and the machine's architectures stay
# as they are.
debian_packages() {
    into=$1 what=$2
    shift 2
    for tool in apt-get apt-config dpkg-deb; do
        have "$tool" || die "$tool is missing: Debian's packages for $what can't be had here"
    done
    # shellcheck disable=SC2153  # the caller's
    debian_mirror "$SUITE" >/dev/null ||
        die "this machine's apt knows no mirror of Debian ${SUITE:-(no suite)}: DEBIAN_MIRROR=url DEBIAN_SUITE=name tell it"

    : "${architecture:=arm64}"
    lists=$DEPS/apt-$architecture
    say "downloading into $DEPS, from Debian $SUITE for $architecture: $*${dependencies:+ and what they depend on} ($what; nothing is installed)"
    private_apt "$lists" "$architecture" "$SUITE"
    export APT_CONFIG
    apt-get -qq update
    rm -rf "$into"
    mkdir -p "$into/packages" "$into/root"
    if [ -n "${dependencies:-}" ]; then
        # As on a machine that has nothing.
        apt-get -qq -y --download-only --no-install-recommends -o Dir::State::status="$lists/status" \
            -o Debug::NoLocking=true install "$@"
        mv "$lists"/cache/archives/*.deb "$into/packages"
        set --
    fi
    for package in "$@"; do
        case $package in
        linux-image-*)
            kernel=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
            [ -n "$kernel" ] || die "$package of $SUITE names no kernel"
            # shellcheck disable=SC2034  # for the caller
            kernel_release=${kernel#linux-image-}
            package=$kernel
            ;;
        xen-system-*)
            package=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(xen-hypervisor-.*\)/\1/p' | head -n 1)
            [ -n "$package" ] || die "xen-system-arm64 of $SUITE names no Xen"
            ;;
        esac
        (cd "$into/packages" && apt-get -qq download "$package")
    done
    echo "suite $SUITE" >"$into/versions"
    for package in "$into"/packages/*.deb; do
        dpkg-deb -x "$package" "$into/root"
        dpkg-deb -f "$package" Package Version | sed -n 'N; s/Package: \(.*\)\nVersion: \(.*\)/\1 \2/p' >>"$into/versions"
    done
    rm -rf "$into/packages" "$lists"
}

# has_packages FOLDER: whether debian_packages' FOLDER is there. Complete once it has its final name; the suite is asked
# for again only when another one is wanted.
has_packages() {
    [ -r "$1/versions" ] && { [ -z "${DEBIAN_SUITE:-}" ] || grep -qx "suite $SUITE" "$1/versions"; }
}

# first FILE...: the one that is there. Debian 13 has moved /lib and /bin below /usr.
first() {
    for file in "$@"; do if [ -e "$file" ]; then echo "$file" && return; fi; done
    die "not in the packages: $1"
}
