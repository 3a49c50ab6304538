#include "app/top_screen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "app/top_data.h"

namespace steelyard {
namespace {

constexpr const char* kMetrics =
    "# HELP steelyard_slots Requests that may run at once.\n"
    "steelyard_slots{model=\"a \\\"b\\\"\"} 4\n"
    "steelyard_requests_running{model=\"a \\\"b\\\"\"} 2\n"
    "steelyard_step_generated_tokens_total{model=\"a \\\"b\\\"\"} 1000\n"
    "steelyard_step_generated_tokens_total{model=\"z\"} 500\n"
    "steelyard_achieved_over_limit{model=\"a \\\"b\\\"\"} 0.79\n"
    "steelyard_kv_pages{model=\"a \\\"b\\\"\"} 100\n"
    "steelyard_kv_pages_in_use{model=\"a \\\"b\\\"\"} 25\n"
    "steelyard_memory_bytes{model=\"a \\\"b\\\"\",device=\"CUDA0\",purpose=\"weights\"} 1073741824\n"
    "steelyard_gpu_memory_bytes{gpu=\"0\",name=\"A card\",pci=\"0000:17:00.0\"} 2147483648\n"
    "steelyard_gpu_busy_ratio{gpu=\"0\",name=\"A card\",pci=\"0000:17:00.0\"} 1\n"
    "steelyard_gpu_memory_busy_ratio{gpu=\"0\",name=\"A card\",pci=\"0000:17:00.0\"} 0.31\n"
    "steelyard_gpu_held_back{gpu=\"0\",name=\"A card\",pci=\"0000:17:00.0\",reason=\"power\"} 1\n"
    "steelyard_process_cpu_seconds_total 10\n"
    "steelyard_host_cores 8\n";

TEST(TopData, ReadsWhatTheServerTells) {
  const TopData data = read_top(kMetrics);
  ASSERT_EQ(data.models.size(), 2u);
  EXPECT_EQ(data.models[0].name, "a \"b\"");
  EXPECT_EQ(data.models[0].slots, 4);
  EXPECT_EQ(data.models[0].bytes(), 1u << 30);
  ASSERT_EQ(data.gpus.size(), 1u);
  EXPECT_EQ(data.gpus[0].busy_percent, 100u);
  EXPECT_TRUE(data.gpus[0].power_capped);
  EXPECT_FALSE(data.gpus[0].too_hot);
  EXPECT_EQ(data.cores, 8);
}

TEST(TopData, RatesAreOfTheTimeBetween) {
  TopData before = read_top(kMetrics), now = before;
  before.at = 10, now.at = 12;
  now.models[0].generated += 100;
  now.models[1].generated = 0;  // loaded anew: no rate
  now.host.cpu_seconds += 3;
  add_rates(before, now);
  EXPECT_DOUBLE_EQ(now.models[0].generated_per_second, 50);
  EXPECT_DOUBLE_EQ(now.models[1].generated_per_second, 0);
  EXPECT_DOUBLE_EQ(now.own_cores, 1.5);
}

TEST(TopData, LinesThatAreNone) {
  MetricLine m;
  for (const char* line : {"", "#", "name", "name{", "name{a=", "name{a=\"b", "name{a=\"b\"",
                           "name{a=\"b\"} x", "{} 1", "name{a=\"b\\"})
    EXPECT_FALSE(read_metric(line, m)) << line;
  EXPECT_TRUE(read_metric("n 1e3", m));
  EXPECT_EQ(m.value, 1000);
  EXPECT_NO_THROW(
      read_top("steelyard_gpu_busy_ratio{gpu=\"99999999999\"} 1\nsteelyard_slots "
               "1\nsteelyard_memory_bytes{model=\"x\"} 1\n"));
}

TEST(TopScreen, FitsATerminalOfEightyColumns) {
  TopData data = read_top(kMetrics);
  data.server = "http://127.0.0.1:11434";
  for (int i = 0; i < 40; ++i)
    data.models.push_back({.name = "a model with quite a long name " + std::to_string(i)});
  const auto lines = top_lines(data, {}, 80, 24);
  EXPECT_EQ(lines.size(), 24u);
  for (const TopLine& line : lines) EXPECT_LE(line.text.size(), 80u) << line.text;
  std::string all;
  for (const TopLine& line : lines) all += line.text + "\n";
  // Use is never shown without the bandwidth beside it.
  EXPECT_NE(all.find("kernels 100 % memory bus  31 %"), std::string::npos) << all;
  EXPECT_NE(all.find("79 %"), std::string::npos);
  EXPECT_NE(lines.back().text.find("q quit"), std::string::npos);
}

TEST(TopScreen, NoRowOfAModelIsCutAtEightyColumns) {
  TopData data = read_top(kMetrics);
  for (TopModel& m : data.models)
    m.generated_per_second = 12345.6, m.prompts_per_second = 123456.7, m.name = std::string(60, 'n');
  for (const TopLine& line : top_lines(data, {.map = false}, 1000, 24))
    EXPECT_LE(line.text.size(), 84u) << line.text;
}

TEST(TopScreen, NamesCommandNoTerminal) {
  TopData data;
  data.models.push_back({.name = "\x1b]0;x\x07"});
  for (const TopLine& line : top_lines(data, {}, 80, 24))
    EXPECT_EQ(line.text.find('\x1b'), std::string::npos);
}

TEST(TopScreen, OrderAndChoice) {
  TopData data = read_top(kMetrics);
  data.models[1].generated_per_second = 9;
  std::vector<TopModel> models = data.models;
  sort_models(models, TopOrder::speed);
  EXPECT_EQ(models[0].name, "z");
  sort_models(models, TopOrder::memory);
  EXPECT_EQ(models[0].name, "a \"b\"");
  const auto lines = top_lines(data, {.chosen = 7}, 80, 24);
  EXPECT_EQ(std::ranges::count_if(lines, &TopLine::chosen), 1);
}

}  // namespace
}  // namespace steelyard
