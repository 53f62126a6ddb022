# Completion of penstockctl for bash. Commands and options are those that it tells by --help.
_penstockctl() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=
    if [ "$COMP_CWORD" = 1 ]; then
        words="--help --version $(penstockctl --help 2>/dev/null | sed -n 's/^  \([a-z]*\).*/\1/p')"
    else
        words=$(penstockctl "$command" --help 2>/dev/null | sed -n 's/^  \(-[a-z], \)\{0,1\}\(--[a-z-]*\).*/\2/p')
        case $command in
            pause | resume) words+=" $(penstockctl status --json 2>/dev/null | grep -o '"queues":\[[^]]*' | grep -o '"name":"[^"]*' | cut -d'"' -f4)" ;;
            drain | scale) words+=" $(penstockctl status --json 2>/dev/null | grep -o '"workers":\[.*' | grep -o '{"name":"[^"]*' | cut -d'"' -f4)" ;;
            dead) words+=" list show requeue drop" ;;
            keys) words+=" add list move revoke" ;;
            submit | diff | backup | restore | check | repair | export) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        esac
    fi
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _penstockctl penstockctl
