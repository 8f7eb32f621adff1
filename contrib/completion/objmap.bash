# objmap(1) completion for bash: verbs and options come from the program's own
# --help, so they are always those of the objmap that is installed.

_objmap_words() {	# what to offer where a PLACE is wanted
	COMPREPLY=($(compgen -W 'dir: mem: file: memory: null: pattern:' -- "$1"))
	compopt -o nospace
}

_objmap_files() {	# paths, below a scheme too: dir:/sr<TAB>
	local word=$1
	compopt -o filenames 2>/dev/null
	COMPREPLY=($(compgen -f -- "$word"))
}

_objmap() {
	local cur prev verb help line i words
	cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()

	# bash cuts words at ':' and '='; what follows one is a path or a value.
	if [[ $cur == ':' || $cur == '=' ]]; then
		cur=
	fi
	if [[ $prev == ':' ]]; then
		_objmap_files "$cur"
		return
	fi
	if ((COMP_CWORD == 1)); then
		words=$("$1" --help 2>/dev/null | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\).*/\1/p' | sort -u)
		COMPREPLY=($(compgen -W "$words --help --version" -- "$cur"))
		return
	fi
	verb=${COMP_WORDS[1]}
	if [[ $verb == help ]]; then
		words=$("$1" --help 2>/dev/null | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\).*/\1/p' | sort -u)
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
		return
	fi
	words=$("$1" --help 2>/dev/null | sed -n "s/^  $verb \([a-z][a-z]*\)  .*/\1/p")
	if [[ $verb == snapshot ]]; then
		if ((COMP_CWORD == 2)); then
			COMPREPLY=($(compgen -W "$words --help" -- "$cur"))
			return
		fi
		verb="snapshot ${COMP_WORDS[2]}"
	fi
	help=$("$1" $verb --help 2>/dev/null)

	# The value of an option: a choice, or a path.
	if [[ $prev == '=' ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	if [[ $prev == --* ]]; then
		line=$(sed -n "s/^ .* $prev \([^ ]*\)\( .*\)*$/\1/p" <<<"$help")
		case $line in
		*'|'*)
			COMPREPLY=($(compgen -W "${line//|/ }" -- "$cur"))
			return ;;
		DIR | FILE | WHERE)
			_objmap_files "$cur"
			return ;;
		COMMAND)
			COMPREPLY=($(compgen -c -- "$cur"))
			return ;;
		[A-Z]*)
			return ;;	# a number, a size: nothing to offer
		esac
	fi
	if [[ $cur == -* ]]; then
		words=$(sed -n 's/^  \(-[a-zA-Z],\|   \) \(--[a-z-]*\).*/\2/p' <<<"$help")
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
		return
	fi
	if [[ $cur == */* || $verb == umount || $verb == serve ]]; then
		_objmap_files "$cur"
	else
		_objmap_words "$cur"
		((${#COMPREPLY[@]})) || _objmap_files "$cur"
	fi
}

complete -F _objmap objmap
