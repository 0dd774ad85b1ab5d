#!/usr/bin/env bash
# The C core under gcc's sanitizers and valgrind:
#
#     tools/sanitize.sh [--fast] [thread|address|undefined|memcheck]...      all four where none is named
#
# First the C program of tests/c, then (not memcheck) tests through Python, on a copy of the tree and in a virtual
# environment of its own, both in a temporary folder. Prints what was found and a summary; exits with 1 on a finding.
# --fast drives and tests less; address,undefined is both in one build.
set -uo pipefail
cd "$(dirname "$0")/.."

flags="-std=c11 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Wdouble-promotion -Werror -g"
through_python=(tests/core/test_{bits,door,threads,vectors,loss_kernels}.py tests/training/test_clipping.py
    tests/optimizers/test_step.py tests/minimization/test_lbfgs.py tests/losses/test_losses.py)
CC=${CC:-gcc}
export CC PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Threads of a BLAS are not ours to check; a fork amid threads, then threads in the child, is what the tests do.
export OPENBLAS_NUM_THREADS=1 PYTHONMALLOC=malloc
threads_through_python=(tests/core/test_{threads,loss_kernels}.py)
core_arguments=(500 10)
if [[ ${1:-} == --fast ]]; then
    shift
    through_python=(tests/core/test_{door,vectors,loss_kernels}.py tests/training/test_clipping.py tests/optimizers/test_step.py)
    threads_through_python=(tests/core/test_{threads,loss_kernels}.py -k "worker or digest_on_any")
    core_arguments=(50 2)
fi
(($#)) || set -- thread address undefined memcheck
for name; do
    case $name in
    thread | address | undefined | address,undefined) ;;
    memcheck) command -v valgrind >/dev/null || { echo "memcheck needs valgrind" >&2; exit 2; } ;;
    *) sed -n '2,8s/^#//p' tools/sanitize.sh >&2; exit 2 ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/tree" && cd "$work/tree" || exit 2
# ThreadSanitizer of gcc 12 does not get along with much randomness in addresses.
fixed=()
setarch -R true 2>/dev/null && fixed=(setarch -R)

summary=()
findings=0
note() { # NAME WHAT STATUS
    (($3 == 0)) && summary+=("$(printf '%-10s %-10s clean' "$1" "$2")") && return
    summary+=("$(printf '%-10s %-10s FOUND SOMETHING' "$1" "$2")")
    findings=1
}

# Runs a command whose sanitizer writes its reports to files; shows them, and fails where there is one.
watched() { # NAME COMMAND...
    local reports=$work/report.${1/,/-} status
    shift
    env TSAN_OPTIONS="die_after_fork=0:log_path=$reports" \
        ASAN_OPTIONS="detect_leaks=${leaks:-0}:detect_stack_use_after_return=1:log_path=$reports" \
        UBSAN_OPTIONS="print_stacktrace=1:log_path=$reports" "$@"
    status=$?
    if compgen -G "$reports.*" >/dev/null; then
        cat "$reports".*
        rm -f "$reports".*
        status=1
    fi
    return $status
}

c_program() { # NAME
    local program=$work/check.$1 run=() arguments=("${core_arguments[@]}")
    local how=(-O1 -fno-omit-frame-pointer -fno-sanitize-recover=all "-fsanitize=$1")
    if [[ $1 == memcheck ]]; then
        # Valgrind runs one thread at a time and does not know how to flush subnormals.
        how=(-O2)
        run=(valgrind -q --error-exitcode=1 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite)
        arguments=(20 2 0)
    fi
    # shellcheck disable=SC2086
    $CC $flags "${how[@]}" -Icsrc csrc/*/*.c tests/core/c/*.c -o "$program" -pthread -lm || return
    leaks=1 watched "$1" "${fixed[@]}" "${run[@]}" "$program" "${arguments[@]}" >"$work/output"
    local status=$?
    grep -v '^hash' "$work/output"
    return $status
}

python_tests() { # NAME
    local tree=$work/$1 preload=() tests=("${through_python[@]}")
    [[ $1 == thread ]] && tests=("${threads_through_python[@]}")
    [[ $1 == undefined ]] || preload=(env LD_PRELOAD="$($CC -print-file-name=lib${1:0:1}san.so)")
    cp -r "$work/tree" "$tree" || return
    # One test preloads a library of its own, others ask what the threads of this process do: a sanitizer has one too. Its
    # build is hardly optimized: there are no vectors in it.
    (cd "$tree" || exit
        FASTOPT_SANITIZE=$1 "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
        watched "$1" "${fixed[@]}" "${preload[@]}" "$python" -m pytest -p no:cacheprovider "${tests[@]}" \
            --deselect tests/core/test_loss_kernels.py::test_the_loops_are_vectors \
            --deselect tests/core/test_threads.py::test_no_thread_to_be_had \
            --deselect tests/core/test_threads.py::test_workers_that_slept_keep_off_the_caller_s_processor_and_its_affinity_stays \
            --deselect tests/core/test_threads.py::test_idle_workers_use_no_cpu)
}

python=$work/venv/bin/python
if [[ " $* " != " memcheck " ]]; then
    echo "== a virtual environment"
    "${PYTHON:-python3}" -m venv "$work/venv" &&
        "$python" -m pip install -q "numpy>=2.0" "cython>=3.1" "setuptools>=77" "pytest>=8" pytest-benchmark hypothesis safetensors scipy || exit 2
fi
for name; do
    echo "== $name: the C program ($SECONDS s)"
    c_program "$name"
    note "$name" "C program" $?
    if [[ $name != memcheck ]]; then
        echo "== $name: through Python ($SECONDS s)"
        python_tests "$name"
        note "$name" "Python" $?
    fi
done
printf '== summary (%d s)\n' $SECONDS
printf '%s\n' "${summary[@]}"
exit $findings
