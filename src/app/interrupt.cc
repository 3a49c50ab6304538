#include "app/interrupt.h"

#include "base/error.h"

namespace steelyard {
namespace {

// Signal handlers can reach nothing but globals; InterruptScope owns this one.
volatile std::sig_atomic_t g_interrupted = 0;

void note_interrupt(int) { g_interrupted = 1; }

}  // namespace

InterruptScope::InterruptScope(bool second_ends) {
  g_interrupted = 0;
  struct sigaction action {};
  action.sa_handler = note_interrupt;
  action.sa_flags = SA_RESTART | (second_ends ? static_cast<int>(SA_RESETHAND) : 0);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, nullptr, &before_);
  if (before_.sa_handler != SIG_IGN)
    sigaction(SIGINT, &action, nullptr);  // a script may have switched it off
}

InterruptScope::~InterruptScope() { sigaction(SIGINT, &before_, nullptr); }

bool InterruptScope::interrupted() { return g_interrupted != 0; }

void InterruptScope::check() {
  if (interrupted()) throw_error(ErrorKind::cancelled, "interrupted: nothing was written");
}

}  // namespace steelyard
