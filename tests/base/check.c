/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/check.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The signal that a child dies of in `f`, its stderr silenced; 0 if it returns. */
static int signal_of(void (*f)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(9);
        signal(SIGABRT, SIG_DFL);
        f();
        _exit(0);
    }
    int status;
    assert_true(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void pass(void)
{
    CHECK(1 + 1 == 2, "arithmetic");
    if (to_int(INT32_MIN) != INT32_MIN || to_i64(INT64_MAX) != INT64_MAX)
        _exit(1);
}

static void break_an_invariant(void)
{
    CHECK(1 + 1 == 3, "the sum is %d", 2);
}

static void narrow_too_much(void)
{
    to_int(1ll << 31);
}

static void lose_the_sign(void)
{
    to_i64(1ull << 63);
}

static void a_broken_invariant_aborts(void **state)
{
    (void)state;
    assert_int_equal(signal_of(pass), 0);
    assert_int_equal(signal_of(break_an_invariant), SIGABRT);
    assert_int_equal(signal_of(narrow_too_much), SIGABRT);
    assert_int_equal(signal_of(lose_the_sign), SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_invariant_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
