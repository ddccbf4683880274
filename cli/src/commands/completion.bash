# Asks PROGRAM what fits, so that names of clusters, nodes and images are proposed too.
_complete_FUNCTION() {
    local line=${COMP_LINE:0:COMP_POINT} words breaks kept
    # COMP_WORDS is cut at "=" and ":", which --name=CLUSTER and names of images have in them.
    IFS=$' \t\n' read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    local current=${words[-1]}
    local IFS=$'\013'
    # shellcheck disable=SC2207 # one candidate between two separators, whatever is in it
    COMPREPLY=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) VARIABLE=bash \
        PROGRAM -- "${words[@]}" 2>/dev/null))
    # Readline only replaces what follows the last place where it would have cut.
    [[ $COMP_WORDBREAKS == *=* ]] && breaks==
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    if [[ -n $breaks ]]; then
        kept=${current%"${current##*["$breaks"]}"}
        COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace
    fi
} 2>/dev/null
complete -o bashdefault -o nosort -F _complete_FUNCTION NAME
