/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_SVG_H
#define DUSK_BASE_SVG_H

/* Writing SVG pictures of boxes and lines of text, as a stream: what has been written
 * is not kept. Lengths are pixels, y grows downwards. Texts are XML-safe. Errors are
 * the stream's (ferror). Local. */

#include <stdio.h>

/* How boxes of one kind look, and what they mean; `text` is dark or light enough to be
 * read on `fill`. */
struct svg_paint {
    const char *fill, *text, *meaning;
};

/* Header, white ground, and the title in the upper left corner. svg_end ends it. */
void svg_begin(FILE *f, double width, double height, const char *title);
void svg_end(FILE *f);

/* A box with its label in the middle, which is left out if the box is too narrow for
 * it, or NULL. hint: what a viewer shows under the pointer, or NULL. */
struct svg_box {
    double x, y, width, height;
    const char *label, *hint;
};
void svg_box(FILE *f, const struct svg_paint *p, const struct svg_box *b);

/* Without label or border. */
void svg_ground(FILE *f, const char *fill, double x, double y, double width,
                double height);

/* The text's left end, or its middle, at x; its line at y. */
void svg_text(FILE *f, double x, double y, const char *text);
void svg_text_middle(FILE *f, double x, double y, const char *text);

void svg_line_down(FILE *f, const char *colour, double x, double from, double to);

/* The distance of an axis' marks, 1, 2 or 5 times a power of ten: the least that is not
 * below `least`, which is above 0. */
double svg_mark(double least);

#endif
