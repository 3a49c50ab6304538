#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "observe/ceilings.h"

namespace steelyard {

Ceilings device_ceilings(Device& device, bool again) {
  const DeviceInfo& info = device.info();
  if (!again) {
    try {
      if (auto kept = load_ceilings(ceilings_path(info))) return *kept;
    } catch (const Error& e) {
      note("note: {}; measuring again", e.what());
    }
  }
  note("measuring the limits of {} …", device_text(info));
  const Ceilings measured = measure_ceilings(device);
  try {
    save_ceilings(measured, ceilings_path(info));
  } catch (const Error& e) {
    note("note: the measured limits can't be kept: {}", e.what());
  }
  return measured;
}

}  // namespace steelyard
