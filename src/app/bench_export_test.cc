#include "app/bench_export.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace steelyard {
namespace {

const BenchSubject kSubject{.version = "1",
                            .file = "a,b.gguf",
                            .type = "llama \"Q4\" | x",
                            .bytes = 3ull << 29,
                            .parameters = 1500000000,
                            .cpu = "A CPU",
                            .backend = "CPU",
                            .batch = 512,
                            .threads = 2,
                            .kv_type = "f16",
                            .time = "2026-01-01T00:00:00Z"};
const BenchRow kRow{.what = parse_bench_case("tg100@50"), .device = "CPU", .rates = {90, 100, 110}};

TEST(BenchExport, MarkdownIsOneTable) {
  const std::string head = bench_markdown_head(), row = bench_markdown(kSubject, kRow);
  EXPECT_EQ(row, "| llama \"Q4\" / x | 1.50 GiB | 1.50 B | CPU | 2 | tg100 @ d50 | 100.00 ± 10.00 |\n");
  EXPECT_EQ(std::ranges::count(row, '|'), std::ranges::count(head.substr(0, head.find('\n')), '|'));
}

TEST(BenchExport, CsvHasAsManyFieldsAsItsHead) {
  const std::string head = bench_csv_head(), row = bench_csv(kSubject, kRow);
  EXPECT_NE(row.find("\"a,b.gguf\",\"llama \"\"Q4\"\" | x\""), std::string::npos) << row;
  std::size_t commas = 0;
  bool inside = false;
  for (const char c : row) {
    if (c == '"') inside = !inside;
    commas += c == ',' && !inside;
  }
  EXPECT_EQ(commas, static_cast<std::size_t>(std::ranges::count(head, ',')));
  EXPECT_NE(row.find(",0,100,50,1,"), std::string::npos) << row;
}

TEST(BenchExport, ChangesAndTheirSpread) {
  const auto before = read_bench(
      R"({"results": [{"test": "tg100@50", "device": "CPU", "tokens_per_second": 80, "slowest": 75, "fastest": 85},
                                                 {"test": "pp10", "device": "CPU", "tokens_per_second": 1, "slowest": 1, "fastest": 1}]})",
      "f");
  BenchRow row = kRow;
  ASSERT_EQ(row.what.name(), "tg100@50");
  const auto faster = change_since(before, row);
  ASSERT_TRUE(faster);
  EXPECT_NEAR(faster->change, 0.25, 1e-9);
  EXPECT_TRUE(faster->sure);
  row.rates = {80, 86};
  EXPECT_FALSE(change_since(before, row)->sure);
  row.device = "CUDA0";
  EXPECT_FALSE(change_since(before, row));
  for (const char* text : {"", "{}", "[]", R"({"results": []})", R"({"results": [{"test": 1}]})"})
    EXPECT_THROW(read_bench(text, "f"), Error) << text;
}

}  // namespace
}  // namespace steelyard
