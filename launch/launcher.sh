# shellcheck shell=bash
# What every launcher shares: its arguments, its dry run, its words on errors. Sourced, never run.
#
# A launcher declares its options in the associative array `options` (name -> default; a flag's default is
# "false") and its help in the function `usage`, then calls parse_arguments "$@". Afterwards `options` holds the
# values, `environment` the KEY=VALUE of every --env, and `train` what follows the options.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dry_run=false
train=()
environment=()
# JAX takes three quarters of a GPU's memory unless it is told; the preflight counts with this fraction, too.
# shellcheck disable=SC2034  # used by what sources this
gpu_memory="XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"

fail() {
    echo "error: $*" >&2
    exit 2
}

# Words as a shell reads them back: quoted where needed, and only there.
quote() {
    local word line=""
    for word in "$@"; do
        if [[ "$word" =~ ^[][A-Za-z0-9_./:=,@%+-]+$ && "$word" != *[][]* ]]; then
            line+=" $word"
        else
            line+=" ${word@Q}"
        fi
    done
    printf '%s' "${line# }"
}

# Print a command, and run it unless this is a dry run.
run() {
    if $dry_run; then
        printf '%s\n' "$(quote "$@")"
    else
        printf '+ %s\n' "$(quote "$@")" >&2
        "$@"
    fi
}

distance() { # between two words: the fewest letters to insert, delete or replace
    local a="$1" b="$2" i j cost least
    local -a before after
    for ((j = 0; j <= ${#b}; j++)); do before[j]=$j; done
    for ((i = 1; i <= ${#a}; i++)); do
        after=("$i")
        for ((j = 1; j <= ${#b}; j++)); do
            cost=1
            [[ "${a:i-1:1}" == "${b:j-1:1}" ]] && cost=0
            least=$((before[j - 1] + cost))
            ((before[j] + 1 < least)) && least=$((before[j] + 1))
            ((after[j - 1] + 1 < least)) && least=$((after[j - 1] + 1))
            after[j]=$least
        done
        before=("${after[@]}")
    done
    echo "${before[${#b}]}"
}

nearest() { # WORD VALID...: the valid word that is closest, for a message
    local word="$1" valid best="" smallest=1000 found
    shift
    for valid in "$@"; do
        found="$(distance "$word" "$valid")"
        if ((found < smallest)); then
            smallest=$found
            best="$valid"
        fi
    done
    if ((smallest <= 1 + ${#word} / 3)); then
        echo " (did you mean '$best'?)"
    else
        echo " (valid: $*)"
    fi
}

check_choice() { # WHAT VALUE VALID...
    local what="$1" value="$2" valid
    shift 2
    for valid in "$@"; do
        [[ "$value" == "$valid" ]] && return
    done
    fail "$what: unknown value '$value'$(nearest "$value" "$@")"
}

check_name() { # WHAT VALUE: of a job, as clouds and clusters take it
    if [[ ! "$2" =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]]; then
        fail "$1: found '$2', expected at most 40 lower-case letters, digits and dashes, a letter first"
    fi
}

check_namespace() { # WHAT VALUE: of a cluster, as Kubernetes takes it
    if [[ ! "$2" =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]]; then
        fail "$1: found '$2', expected at most 63 lower-case letters, digits and dashes"
    fi
}

check_volume() { # WHAT VALUE: of a volume claim, as Kubernetes takes it
    local part="[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    if [[ ! "$2" =~ ^$part(\.$part)*$ ]] || ((${#2} > 253)); then
        fail "$1: found '$2', expected at most 253 lower-case letters, digits, dashes and dots, a letter or digit" \
            "at both ends and beside a dot"
    fi
}

# A job is asked to end three minutes before its limit, up to one minute early; before that it must come to something.
# Zero is SLURM's word for no limit.
check_time() { # WHAT LIMIT: of a SLURM job, as MINUTES, MINUTES:SECONDS, H:MM:SS or DAYS-H[:MM[:SS]]
    local days=0 given="$2" minutes hours=0 least=5
    local -a parts
    if [[ ! "$given" =~ ^([0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2})$ ]]; then
        fail "$1: found '$given', expected SLURM's MINUTES, H:MM:SS or DAYS-H:MM:SS"
    fi
    IFS=: read -ra parts <<<"${given#*-}"
    if [[ "$given" == *-* ]]; then
        days="${given%%-*}"
        hours="${parts[0]}"
        minutes="${parts[1]:-0}"
    elif ((${#parts[@]} == 3)); then
        hours="${parts[0]}"
        minutes="${parts[1]}"
    else
        minutes="${parts[0]}"
    fi
    minutes=$((10#$days * 1440 + 10#$hours * 60 + 10#$minutes))
    ((minutes >= least)) || [[ "$given" =~ ^[0:-]+$ ]] || fail "$1: found '$given', expected at least $least minutes: a run is asked to end 3 to 4" \
        "minutes before"
}

check_given() { # OPTION...: that have no default
    local name
    for name in "$@"; do
        [[ -n "${options[$name]}" ]] || fail "give --$name"
    done
}

check_number() { # WHAT VALUE LEAST
    if [[ ! "$2" =~ ^[0-9]+$ ]] || ((10#$2 < $3)); then
        fail "$1: found '$2', expected a whole number from $3 on"
    fi
}

parse_arguments() {
    local name value
    local -a valid
    mapfile -t valid < <(printf -- '--%s\n' "${!options[@]}" env dry-run help | sort)
    while (($#)); do
        case "$1" in
            -h | --help) usage; exit 0 ;;
            --dry-run) dry_run=true; shift ;;
            --) shift; break ;;
            --resume | --auto-resume | [!-]*) break ;;  # from here on, they are launch.train's
            --*)
                name="${1%%=*}"
                name="${name#--}"
                if [[ "$name" != env && -z "${options[$name]+set}" ]]; then
                    fail "unknown option '--$name'$(nearest "--$name" "${valid[@]}")"
                elif [[ "$name" != env && "${options[$name]}" =~ ^(true|false)$ ]]; then
                    [[ "$1" == "--$name" ]] || fail "--$name takes no value"
                    options["$name"]=true
                    shift
                    continue
                elif [[ "$1" == *=* ]]; then
                    value="${1#*=}"
                    shift
                elif (($# > 1)); then
                    value="$2"
                    shift 2
                else
                    fail "--$name needs a value"
                fi
                [[ "$value" != *$'\n'* ]] || fail "--$name: a value cannot hold a line break"
                if [[ "$name" == env ]]; then
                    [[ "$value" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "--env: found '$value', expected KEY=VALUE"
                    environment+=("$value")
                else
                    options["$name"]="$value"
                fi
                ;;
            *) fail "unknown option '$1'$(nearest "$1" "${valid[@]}")" ;;
        esac
    done
    train=("$@")
}

# The arguments of launch.train: a config file with overrides, or --resume RUN. A config's run is gone on with
# where its folder exists, so that the same command serves a fresh start and a restart. Paths are relative to the
# repository, wherever a launcher is called from: so they mean the same on every host.
check_train() {
    local word config names
    ((${#train[@]})) || fail "give a config file (and overrides), or --resume RUN"
    for word in "${train[@]}"; do
        [[ "$word" != *$'\n'* ]] || fail "an argument of launch.train cannot hold a line break"
    done
    if [[ "${train[0]}" == --resume ]]; then
        ((${#train[@]} == 2)) || fail "--resume needs the folder of a run, and nothing after it"
        return
    fi
    [[ "${train[0]}" == --auto-resume ]] || train=(--auto-resume "${train[@]}")
    config="${train[1]:-}"
    if [[ ! -f "$root/$config" && ! ("$config" == /* && -f "$config") ]]; then
        mapfile -t names < <(cd "$root" && printf '%s\n' configs/*.yaml)
        fail "no such config: '$config'$(nearest "$config" "${names[@]}")"
    fi
    for word in "${train[@]:2}"; do
        [[ "$word" == *=* ]] || fail "override '$word': expected key=value"
    done
}
