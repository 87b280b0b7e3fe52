/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/svg.h"

#include <math.h>
#include <string.h>

enum {
    FONT = 12,
    DIGIT = 7, /* width of a figure, about */
    MARGIN = 12,
    BASELINE = 7 /* of a label, above the box's lower edge */
};

void svg_begin(FILE *f, double width, double height, const char *title)
{
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" "
            "viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" font-size=\"%d\">\n",
            width, height, width, height, FONT);
    svg_ground(f, "#ffffff", 0, 0, width, height);
    svg_text(f, MARGIN, 20, title);
}

void svg_end(FILE *f)
{
    fprintf(f, "</svg>\n");
}

void svg_box(FILE *f, const struct svg_paint *p, const struct svg_box *b)
{
    fprintf(f,
            "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"%s\" "
            "stroke=\"#ffffff\" stroke-width=\"%g\"",
            b->x, b->y, b->width, b->height, p->fill, fmin(1, b->width / 4));
    if (b->hint)
        fprintf(f, "><title>%s</title></rect>", b->hint);
    else
        fprintf(f, "/>");
    if (b->label && DIGIT * (double)strlen(b->label) + 2 <= b->width)
        fprintf(f,
                "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\" fill=\"%s\">%s</text>",
                b->x + b->width / 2, b->y + b->height - BASELINE, p->text, b->label);
    fputc('\n', f);
}

void svg_ground(FILE *f, const char *fill, double x, double y, double width,
                double height)
{
    fprintf(f, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"%s\"/>\n", x,
            y, width, height, fill);
}

void svg_text(FILE *f, double x, double y, const char *text)
{
    fprintf(f, "<text x=\"%g\" y=\"%g\">%s</text>\n", x, y, text);
}

void svg_text_middle(FILE *f, double x, double y, const char *text)
{
    fprintf(f, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%s</text>\n", x, y,
            text);
}

void svg_line_down(FILE *f, const char *colour, double x, double from, double to)
{
    fprintf(f, "<path d=\"M%g %gV%g\" stroke=\"%s\"/>\n", x, from, to, colour);
}

double svg_mark(double least)
{
    static const double steps[] = {1, 2, 5};
    double power = pow(10, floor(log10(least)));
    for (int i = 0; i < 3; i++)
        if (steps[i] * power >= least * (1 - 1e-12))
            return steps[i] * power;
    return 10 * power;
}
