# bash completion for replog: source it, or put it into
# ~/.local/share/bash-completion/completions/replog
# Made from the program's own arguments by tests/cli_pages.rs.

_replog() {
    local cur prev word command= skip= i
    COMPREPLY=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    # bash splits --option=value in three.
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
    case $prev in
        --secondaries) return ;;
        --gateway-port) return ;;
        --wire-port) return ;;
        --data-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
        --fsync) COMPREPLY=($(compgen -W 'always interval never' -- "$cur")); return ;;
        --quorum) COMPREPLY=($(compgen -W 'majority all' -- "$cur")); return ;;
        --write-concern) COMPREPLY=($(compgen -W 'majority all' -- "$cur")); return ;;
        --heartbeat) return ;;
        --set) return ;;
        --config) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --id) return ;;
        --listen) return ;;
        --gateway) return ;;
        --log-level) COMPREPLY=($(compgen -W 'error warn info debug trace' -- "$cur")); return ;;
        --log-format) COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        --log-file) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --secondary) return ;;
        --accept-data-loss) return ;;
        --delay) return ;;
        --output) COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        --limit) return ;;
        --from) return ;;
    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $skip ]]; then [[ $word == = ]] || skip=; continue; fi
        case $word in
            -* | =) ;;
            *) command=$word; break ;;
        esac
    done
    case $command in
        '') COMPREPLY=($(compgen -W 'dev master secondary inspect -h --help --version' -- "$cur")) ;;
        dev) COMPREPLY=($(compgen -W '-h --help --secondaries --gateway-port --wire-port --data-dir --fsync --quorum --write-concern --heartbeat --set --version' -- "$cur")) ;;
        master) COMPREPLY=($(compgen -W '-h --help --config --id --listen --gateway --data-dir --memory --fsync --faults --insecure --log-level --log-format --log-file --set --version --secondary --quorum --write-concern --heartbeat --bootstrap --accept-data-loss' -- "$cur")) ;;
        secondary) COMPREPLY=($(compgen -W '-h --help --config --id --listen --gateway --data-dir --memory --fsync --faults --insecure --log-level --log-format --log-file --set --version --delay' -- "$cur")) ;;
        inspect) COMPREPLY=($(compgen -W '-h --help --output --limit --from --quiet --version' -- "$cur") $(compgen -f -- "$cur")) ;;
    esac
}
complete -F _replog replog
