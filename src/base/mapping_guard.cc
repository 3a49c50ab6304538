#include "base/mapping_guard.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <utility>

namespace steelyard {

// Never freed, since a handler may be walking the list; taken again by the next guard.
struct MappingGuard::Range {
  std::atomic<bool> taken{false};
  std::atomic<std::uintptr_t> begin{0}, end{0};
  std::atomic<bool> torn{false};
  Range* next = nullptr;
};

namespace {

using Range = MappingGuard::Range;

std::atomic<Range*> ranges{nullptr};
struct sigaction previous {};
std::uintptr_t page_bytes = 4096;

// Zeros from the page at `at` to the range's end: the file has nothing there any more.
bool fill_with_zeros(Range& range, std::uintptr_t at) {
  const std::uintptr_t page = at & ~(page_bytes - 1);
  const std::uintptr_t end = (range.end + page_bytes - 1) & ~(page_bytes - 1);
  // The call itself: library wrappers (sanitizers have some) aren't made for signal handlers.
  const long result = ::syscall(SYS_mmap, page, end - page, PROT_READ,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (result == -1) return false;
  range.torn.store(true, std::memory_order_release);
  return true;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Range* r = ranges.load(std::memory_order_acquire); r != nullptr; r = r->next)
    if (at >= r->begin && at < r->end && fill_with_zeros(*r, at)) return;
  if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr)
    previous.sa_sigaction(signal, info, context);
  else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    previous.sa_handler(signal);
  else if (previous.sa_handler == SIG_DFL && ::signal(SIGBUS, SIG_DFL) != SIG_ERR)
    ::raise(SIGBUS);  // ends the process on return, as it would have
}

bool install() {
  page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &previous) == 0;
}

Range* take_range() {
  for (Range* r = ranges.load(std::memory_order_acquire); r != nullptr; r = r->next)
    if (bool free = false; r->taken.compare_exchange_strong(free, true)) return r;
  auto* added = new Range;
  added->taken = true;
  added->next = ranges.load();
  while (!ranges.compare_exchange_weak(added->next, added, std::memory_order_acq_rel)) {
  }
  return added;
}

}  // namespace

MappingGuard::MappingGuard(const std::byte* begin, std::size_t bytes) {
  static const bool installed = install();
  if (!installed) return;
  range_ = take_range();
  range_->torn = false;
  range_->begin = reinterpret_cast<std::uintptr_t>(begin);
  range_->end = reinterpret_cast<std::uintptr_t>(begin) + bytes;
}

MappingGuard::MappingGuard(MappingGuard&& other) noexcept : range_(std::exchange(other.range_, nullptr)) {}

MappingGuard& MappingGuard::operator=(MappingGuard&& other) noexcept {
  std::swap(range_, other.range_);
  return *this;
}

MappingGuard::~MappingGuard() {
  if (range_ == nullptr) return;
  range_->end = 0;
  range_->begin = 0;
  range_->taken.store(false, std::memory_order_release);
}

bool MappingGuard::torn() const { return range_ != nullptr && range_->torn.load(std::memory_order_acquire); }

}  // namespace steelyard
