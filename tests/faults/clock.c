// What a program that this is loaded into (LD_PRELOAD) sees of its clocks, as the file CLOCK_FILE says: see clock.rs.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

// In nanoseconds, as the file has it. Every clock that counts is `rate` times as fast as the machine's since `base`; the wall
// clock shows `jump` more than that.
struct clock {
	int64_t base;
	double rate;
	int64_t jump;
};

static const volatile struct clock the_machines = {0, 1.0, 0};
static const volatile struct clock *ours = &the_machines;

__attribute__((constructor)) static void load(void) {
	const char *path = getenv("CLOCK_FILE");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (file < 0)
		return;
	void *at = mmap(NULL, sizeof(struct clock), PROT_READ, MAP_SHARED, file, 0);
	if (at != MAP_FAILED)
		ours = at;
	close(file);
}

static int64_t nanos(struct timespec time) {
	return time.tv_sec * 1000000000 + time.tv_nsec;
}

static struct timespec spec(int64_t nanos) {
	return (struct timespec){nanos / 1000000000, nanos % 1000000000};
}

// What our clock shows when the machine's shows this.
static int64_t shown(int64_t machines) {
	return ours->base + (int64_t)((machines - ours->base) * ours->rate);
}

// What the machine's clock shows when ours shows this: never before its start, and none later than there can be.
static int64_t meant(int64_t shown) {
	double machines = ours->base + (shown - ours->base) / ours->rate;
	return machines < 1 ? 1 : machines > 9e18 ? (int64_t)9e18 : (int64_t)machines;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
	if (syscall(SYS_clock_gettime, clock, time) != 0)
		return -1;
	struct timespec boot;
	switch (clock) {
	case CLOCK_BOOTTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_MONOTONIC_RAW:
		*time = spec(shown(nanos(*time)));
		break;
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &boot);
		*time = spec(nanos(*time) + ours->jump + shown(nanos(boot)) - nanos(boot));
		break;
	}
	return 0;
}

// A timer of a clock that counts: no program of ours has one of the wall clock.
int timerfd_settime(int timer, int flags, const struct itimerspec *set, struct itimerspec *before) {
	struct itimerspec machines = *set;
	int64_t value = nanos(set->it_value);
	if (value != 0)
		machines.it_value = spec(flags & TFD_TIMER_ABSTIME ? meant(value) : (int64_t)(value / ours->rate));
	machines.it_interval = spec((int64_t)(nanos(set->it_interval) / ours->rate));
	return syscall(SYS_timerfd_settime, timer, flags, &machines, before);
}

int epoll_wait(int poll, struct epoll_event *events, int most, int timeout) {
	int machines = timeout > 0 ? (int)(timeout / ours->rate + 0.999) : timeout;
	return syscall(SYS_epoll_pwait, poll, events, most, machines, NULL, 0);
}
