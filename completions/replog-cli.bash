# bash completion for replog-cli: source it, or put it into
# ~/.local/share/bash-completion/completions/replog-cli
# Made from the program's own arguments by tests/cli_pages.rs.

_replog_cli() {
    local cur prev word command= skip= i
    COMPREPLY=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    # bash splits --option=value in three.
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
    case $prev in
        --server) COMPREPLY=($(compgen -W '127.0.0.1:9000 127.0.0.1:9001 127.0.0.1:9002' -- "$cur")); return ;;
        --output) COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        -w | --w) COMPREPLY=($(compgen -W 'majority all' -- "$cur")); return ;;
        --ack) COMPREPLY=($(compgen -W 'stored received' -- "$cur")); return ;;
        --timeout) return ;;
        --id) return ;;
        --match) return ;;
        --file) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --from) return ;;
        --limit) return ;;
        --level) COMPREPLY=($(compgen -W 'local committed all' -- "$cur")); return ;;
        -n | --n) return ;;
    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $skip ]]; then [[ $word == = ]] || skip=; continue; fi
        case $word in
            --server | --output) skip=1 ;;
            -* | =) ;;
            *) command=$word; break ;;
        esac
    done
    case $command in
        '') COMPREPLY=($(compgen -W 'append list get tail wait outcome status health waiters metrics digest ping verify delay fail mute store bench -h --help --server --output --quiet --version' -- "$cur")) ;;
        append) COMPREPLY=($(compgen -W '-h --help -w --w --ack --timeout --id --match --atomic --file -0 --null --server --output --quiet' -- "$cur")) ;;
        list) COMPREPLY=($(compgen -W '-h --help --from --limit --level --raw -0 --null --server --output --quiet' -- "$cur")) ;;
        get) COMPREPLY=($(compgen -W '-h --help --raw --server --output --quiet' -- "$cur")) ;;
        tail) COMPREPLY=($(compgen -W '-h --help -n --n -f --follow --level --raw -0 --null --server --output --quiet' -- "$cur")) ;;
        wait) COMPREPLY=($(compgen -W '-h --help -w --w --ack --timeout --server --output --quiet' -- "$cur")) ;;
        outcome) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        status) COMPREPLY=($(compgen -W '-h --help --all --watch --server --output --quiet' -- "$cur")) ;;
        health) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        waiters) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        metrics) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        digest) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        ping) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        verify) COMPREPLY=($(compgen -W '-h --help --timeout --server --output --quiet' -- "$cur")) ;;
        delay) COMPREPLY=($(compgen -W '-h --help --server --output --quiet every= off' -- "$cur")) ;;
        fail) COMPREPLY=($(compgen -W '-h --help --server --output --quiet before after off' -- "$cur")) ;;
        mute) COMPREPLY=($(compgen -W '-h --help --server --output --quiet off' -- "$cur")) ;;
        store) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
        bench) COMPREPLY=($(compgen -W '-h --help --server --output --quiet' -- "$cur")) ;;
    esac
}
complete -F _replog_cli replog-cli
