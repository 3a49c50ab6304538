// Pieces of SVG pictures. Texts may come from files: what means something in XML is escaped, control
// characters are left out. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace steelyard {

std::string svg_escaped(std::string_view text);
// `more`: further attributes.
std::string svg_text(double x, double y, int size, std::string_view text, std::string_view more = "");
// `tip`: what the pointer shows over it.
std::string svg_rect(double x, double y, double width, double height, std::string_view fill,
                     std::string_view tip);

}  // namespace steelyard
