/* The first process of every pod: holds its namespaces, reaps what is orphaned in them, ends when told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signal)
{
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static void finish(int signal)
{
    (void)signal;
    _exit(0);
}

int main(void)
{
    struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    struct sigaction on_end = {.sa_handler = finish};

    if (sigaction(SIGCHLD, &on_child, NULL) || sigaction(SIGINT, &on_end, NULL) || sigaction(SIGTERM, &on_end, NULL))
        return 1;
    for (;;)
        pause();
}
