// The plug-in on the fake driver, for end-to-end tests on machines without a GPU: everything works but
// kernels, which compute nothing, so that every sample is token 0. STEELYARD_FAKE_MEMORY: bytes of the GPU's
// memory. STEELYARD_FAKE_FAIL="CALL N RESULT": from the N-th call of that driver function on, it returns
// RESULT.
#include <atomic>
#include <cstdlib>
#include <sstream>

#include "device/cuda/testing/fake_driver.h"

namespace steelyard::cuda {
namespace {

struct Failure {
  std::string call;
  long after = 0;
  CuResult result = 0;
  std::atomic<long> calls{0};
};

FakeDriver* make_fake() {
  const char* memory = std::getenv("STEELYARD_FAKE_MEMORY");
  auto* fake = new FakeDriver(memory ? std::strtoull(memory, nullptr, 10) : 8ull << 30);
  if (const char* text = std::getenv("STEELYARD_FAKE_FAIL")) {
    auto failure = std::make_shared<Failure>();
    std::istringstream(text) >> failure->call >> failure->after >> failure->result;
    fake->fail = [failure](const std::string& call) {
      return call == failure->call && ++failure->calls >= failure->after ? failure->result : 0;
    };
  }
  return fake;
}

}  // namespace

bool load_driver(Driver& driver, std::string&) {
  static const FakeDriver* const fake = make_fake();  // for the life of the process, as the real one
  driver = fake->table();
  return true;
}

std::span<const KernelImage> embedded_kernels() { return FakeDriver::images(); }

}  // namespace steelyard::cuda
