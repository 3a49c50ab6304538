#include "api/metrics_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "observe/telemetry.h"

namespace steelyard::api {
namespace {

using ::testing::HasSubstr;

TEST(MachineMetrics, EveryLineIsPrometheus) {
  const Telemetry telemetry;
  const std::string text = machine_metrics(telemetry);
  EXPECT_THAT(text, HasSubstr("steelyard_process_resident_bytes "));
  EXPECT_THAT(text, HasSubstr("steelyard_host_cores "));
  EXPECT_THAT(text, HasSubstr("steelyard_telemetry_cost_ratio "));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    EXPECT_THAT(line, ::testing::ContainsRegex("^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\\{.*\\})? [0-9.e+-]+)$"));
}

TEST(MachineMetrics, HistoryIsJson) {
  const Telemetry telemetry;
  const auto history = nlohmann::json::parse(machine_history(telemetry));
  EXPECT_EQ(history.at("period_seconds"), 5);
  ASSERT_EQ(history.at("points").size(), 1u);
  EXPECT_GT(history.at("points")[0].at("resident_bytes"), 0);
}

TEST(MachineMetrics, LabelsAreQuoted) { EXPECT_EQ(metric_label("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\""); }

}  // namespace
}  // namespace steelyard::api
