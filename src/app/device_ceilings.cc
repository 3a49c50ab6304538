#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "observe/ceilings.h"

namespace steelyard {

void keep_ceilings(const Ceilings& ceilings, const DeviceInfo& device) {
  try {
    save_ceilings(ceilings, ceilings_path(device));
  } catch (const Error& e) {
    note("note: the measured limits can't be kept: {}", e.what());
  }
}

Ceilings device_ceilings(Device& device, bool again) {
  const DeviceInfo& info = device.info();
  const unsigned cores = machine_cores();
  std::optional<Ceilings> kept;
  try {
    kept = load_ceilings(ceilings_path(info));
  } catch (const Error& e) {
    note("note: {}; measuring again", e.what());
  }
  // What a busy machine gave is measured again as soon as there may be more to see.
  if (kept && !again && !measured_while_busy(*kept, cores)) return *kept;
  note("measuring the limits of {} …", device_text(info));
  Ceilings now = measure_ceilings(device);
  if (measured_while_busy(now, cores))
    note(
        "note: the machine was busy meanwhile (load {:.1f}, repeats differ by {:.0f} %), so the limits may "
        "be "
        "too low; they are measured again next time",
        now.load, 100 * now.spread);
  if (kept) now = best_of(*kept, now);
  keep_ceilings(now, info);
  return now;
}

}  // namespace steelyard
