# Completion of penstockctl for bash, and by its bashcompinit for zsh, which lacks mapfile. Commands and options are those that it tells by --help.
_penstockctl() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words= files=
    if [ "$COMP_CWORD" = 1 ]; then
        words="--help --version $(penstockctl --help 2>/dev/null | sed -n 's/^  \([a-z]*\).*/\1/p')"
    else
        words=$(penstockctl "$command" --help 2>/dev/null | sed -n 's/^  \(-[a-z], \)\{0,1\}\(--[a-z-]*\).*/\2/p')
        case $command in
            pause | resume) words+=" $(penstockctl status --json 2>/dev/null | grep -o '"queues":\[[^]]*' | grep -o '"name":"[^"]*' | cut -d'"' -f4)" ;;
            drain | scale) words+=" $(penstockctl status --json 2>/dev/null | grep -o '"workers":\[.*' | grep -o '{"name":"[^"]*' | cut -d'"' -f4)" ;;
            dead)
                case ${COMP_WORDS[2]} in
                    show | requeue | drop) [ "$COMP_CWORD" = 3 ] && words+=" $(penstockctl dead list --json 2>/dev/null | grep -o '"id":"[^"]*' | cut -d'"' -f4)" ;;
                    *) words+=" list show requeue drop" ;;
                esac
                ;;
            keys)
                case ${COMP_WORDS[2]} in
                    list | move | revoke) [ "$COMP_CWORD" = 3 ] && words+=" $(penstockctl keys list --json 2>/dev/null | grep -o '"\(id\|owner\)":"[^"]*' | cut -d'"' -f4)" ;;
                    *) words+=" add list move revoke" ;;
                esac
                ;;
            submit | diff | backup | restore | check | repair | export) files=1 ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ -n "$files" ]; then
        local IFS=$'\n'
        COMPREPLY+=($(compgen -f -- "$word"))
    fi
}
complete -F _penstockctl penstockctl
